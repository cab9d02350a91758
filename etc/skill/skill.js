// A sample skill: a plain Node HTTP server. It knows nothing of draining: SIGTERM ends it at once. What it says is in
// words.json beside it; where that cannot be read, it does not come up.
//
//   GET /health       "ok": it can serve
//   GET /             a short answer: who gave it
//   GET /long?s=20    a task: works for so many seconds, then answers
//   GET /sse?s=20     a stream: ten events a second for so long, then the event "end"
//
// It listens on the descriptor that agentd hands over as its first argument. No connection of its is lost all the same:
// agentd sends it nothing new, waits until its connections have ended, and only then sends SIGTERM.

const fs = require("node:fs");
const http = require("node:http");

const { greeting } = JSON.parse(fs.readFileSync("words.json", "utf8"));

const worker = `${process.env.AGENTD_APP}.${process.env.AGENTD_SLOT} (pid ${process.pid})`;

function stream(response, seconds) {
  response.writeHead(200, { "content-type": "text/event-stream", connection: "close" });
  const end = Date.now() + seconds * 1000;
  const timer = setInterval(() => {
    const left = end - Date.now();
    if (left > 0) return response.write(`data: ${(left / 1000).toFixed(1)} s left\n\n`);
    clearInterval(timer);
    response.end("event: end\ndata: done\n\n");
  }, 100);
  response.on("close", () => clearInterval(timer));
}

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  const seconds = Number(url.searchParams.get("s") ?? 1);
  const answer = (status) => {
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify({ greeting, worker, path: url.pathname, ok: status === 200 }) + "\n");
  };
  switch (url.pathname) {
    case "/":
    case "/health":
      return answer(200);
    case "/long":
      return setTimeout(answer, seconds * 1000, 200);
    case "/sse":
      return stream(response, seconds);
    default:
      return answer(404);
  }
});

server.listen({ fd: Number(process.argv[2]) }, () => console.log(`${worker} serves`));
