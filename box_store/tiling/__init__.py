"""Large images in parts: what is small beside the whole is shown at the size that it has (Akyon,
Altinuc and Temizel, ICIP 2022, arXiv 2202.06934, "slicing aided hyper inference").
"""
