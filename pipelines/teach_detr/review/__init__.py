"""What a person should look at first: a queue, a page of it, and tasks for a label tool."""
