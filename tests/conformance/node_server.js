// Answers every request with one empty gRPC message once it has all of it: node node_server.js HOST PORT

"use strict";

const http2 = require("node:http2");

const [host, port] = process.argv.slice(2);
const EMPTY_MESSAGE = Buffer.alloc(5);

const server = http2.createServer();
server.on("stream", (stream) => {
  stream.on("error", () => {}); // The client may go at any time.
  stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
  stream.resume();
  stream.on("end", () => {
    stream.respond(
      { ":status": 200, "content-type": "application/grpc" },
      { waitForTrailers: true },
    );
    stream.end(EMPTY_MESSAGE);
  });
});
server.listen(Number(port), host);
