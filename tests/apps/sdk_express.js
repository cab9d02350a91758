// An Express app whose requests are tasks.
'use strict';
const express = require('express');
const { Worker, middleware } = require('../../sdk/node');

const worker = new Worker();
const app = express();
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

app.use(middleware(worker));
app.get('/sse', async (request, response) => {
  response.type('text/event-stream');
  for (let n = 0; n < Math.floor(Number(request.query.s) * 5); n += 1) {
    response.write(`data: ${n}\n\n`);
    await wait(200);
  }
  response.end('data: end\n\n');
});

const server = app.listen({ fd: Number(process.env.AGENTD_FD_HTTP) }, () => worker.ready());
process.on('SIGTERM', () => server.close());
