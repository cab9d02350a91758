'use strict';
// Begins and ends tasks through the Node SDK, many at a time, for SECONDS; writes how many to the file RESULT.

const fs = require('node:fs');
const { Worker } = require('../../sdk/node');

const AT_ONCE = 512;
const worker = new Worker();
let done = 0;

async function one(until) {
  while (Date.now() < until) {
    await worker.task({ kind: 'pair' }, () => {});
    done += 1;
  }
}

async function main() {
  await worker.ready();
  const began = Date.now();
  await Promise.all(Array.from({ length: AT_ONCE }, () => one(began + 1000 * Number(process.env.SECONDS))));
  const said = JSON.stringify({ n: done, per_second: (1000 * done) / (Date.now() - began), cpu_seconds: process.cpuUsage().user / 1e6 });
  fs.writeFileSync(`${process.env.RESULT}.new`, said);
  fs.renameSync(`${process.env.RESULT}.new`, process.env.RESULT);
  setInterval(() => {}, 1 << 30);
}

main();
