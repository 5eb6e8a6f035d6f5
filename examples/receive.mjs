// Receives webhooks and verifies each with the official library.
//   npm install standardwebhooks
//   node receive.mjs SECRET_FILE [PORT]
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const [secretFile, port = "3000"] = process.argv.slice(2);
const webhook = new Webhook(readFileSync(secretFile, "utf8").trim());

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks); // the raw bytes: parsing first would break the signature
  try {
    webhook.verify(body, request.headers);
    // The same id means the same delivery: remember it if handling it twice would hurt.
    console.log("verified", request.headers["webhook-id"], request.headers["ce-type"], body.length);
    response.writeHead(204).end();
  } catch (error) {
    console.log("refused", error.message);
    response.writeHead(400).end();
  }
});
server.listen(Number(port), "127.0.0.1", () => console.log("listening on", server.address().port));
