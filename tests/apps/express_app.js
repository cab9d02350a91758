// An Express app with the graceful shutdown of its guide: on SIGTERM the server is closed, and the process ends when
// all connections have. It knows nothing of agentd but where its listener is.
'use strict';
const express = require('express');

const app = express();
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

app.get('/', (request, response) => {
  response.send(`${process.env.VERSION ?? '-'} ${process.env.AGENTD_WORKER} ${process.pid}\n`);
});
app.get('/long', async (request, response) => {
  await wait(1000 * Number(request.query.s));
  response.send('done\n');
});
app.get('/sse', async (request, response) => {
  response.type('text/event-stream');
  for (let n = 0; n < Math.floor(Number(request.query.s) * 5); n += 1) {
    response.write(`data: ${n}\n\n`);
    await wait(200);
  }
  response.end('data: end\n\n');
});

const server = app.listen({ fd: Number(process.env.AGENTD_FD_HTTP) });
process.on('SIGTERM', () => server.close());
