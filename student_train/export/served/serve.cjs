// onnxruntime-web (WebAssembly) under node: `node serve.cjs FILE THREADS`; see __init__.py beside this file.
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const { createRequire } = require("node:module");

const KINDS = {
  float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array,
  uint8: Uint8Array, int8: Int8Array, bool: Uint8Array,
};

function say(content) {
  process.stdout.write(JSON.stringify(content) + "\n");
}

function load() {
  // where the caller's project is, then where this file is
  const from = createRequire(path.join(process.cwd(), "x.js"));
  const main = from.resolve("onnxruntime-web");
  // the package keeps its package.json to itself
  const folder = main.slice(0, main.lastIndexOf("onnxruntime-web") + "onnxruntime-web".length);
  const version = JSON.parse(fs.readFileSync(path.join(folder, "package.json"))).version;
  return [from("onnxruntime-web"), version];
}

function peakMib() {
  // the kernel's other count goes on from that of the process that started this one
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync("/proc/self/status", "utf8"))[1]) / 1024;
  } catch {
    return process.resourceUsage().maxRSS / 1024;
  }
}

async function main() {
  const [file, threads] = process.argv.slice(2);
  let session, ort, version;
  try {
    [ort, version] = load();
    ort.env.wasm.numThreads = Number(threads);
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(fs.readFileSync(file), { executionProviders: ["wasm"] });
  } catch (error) {
    say({ error: String(error) });
    return;
  }
  say({ ready: version });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      const job = JSON.parse(line);
      const feeds = {};
      job.inputs.forEach((one, at) => {
        const bytes = fs.readFileSync(path.join(job.folder, `${at}.in`));
        const copy = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
        feeds[one.name] = new ort.Tensor(one.dtype, new KINDS[one.dtype](copy), one.shape);
      });
      const begun = process.hrtime.bigint();
      const before = process.cpuUsage();
      const found = await session.run(feeds);
      const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
      const used = process.cpuUsage(before);
      const cpu = (used.user + used.system) / 1e6;
      const outputs = session.outputNames.map((name, at) => {
        const value = found[name];
        const data = value.data;
        fs.writeFileSync(path.join(job.folder, `${at}.out`), Buffer.from(data.buffer, data.byteOffset, data.byteLength));
        return { name, dtype: value.type, shape: value.dims.map(Number) };
      });
      say({ outputs, seconds, cpu, peak_mib: peakMib() });
    } catch (error) {
      say({ error: String(error) });
    }
  }
}

main();
