// Drives `claudemesh mcp` with the MCP client of the official TypeScript SDK.
//
//   client.mjs SDK_FOLDER PROGRAM RECIPIENT
//
// Prints one JSON object per step on stdout; the test reads them.
import { createRequire } from "node:module";

const [folder, program, recipient] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

const say = (step, fields) => process.stdout.write(JSON.stringify({ step, ...fields }) + "\n");
const failed = (error) => {
  say("failed", { error: String(error?.stack ?? error) });
  process.exit(1);
};

const client = new Client({ name: "sdk-test", version: "1.0.0" }, { capabilities: { roots: { listChanged: true } } });
client.onerror = failed; // a line on stdout that is no JSON-RPC ends up here
let note;
const noted = new Promise((resolve) => (note = resolve));
client.fallbackNotificationHandler = async (notification) => {
  // A welcome comes first; what is waited for is the message.
  if (notification.method === "notifications/claude/channel" && notification.params.meta.kind !== "welcome") {
    note(notification.params);
  }
};

try {
  const transport = new StdioClientTransport({ command: program, args: ["mcp"], env: { ...process.env }, stderr: "inherit" });
  await client.connect(transport);
  const { tools } = await client.listTools();
  say("ready", {
    server: client.getServerVersion(),
    capabilities: client.getServerCapabilities(),
    instructions: client.getInstructions(),
    tools,
  });
  say("peers", { result: await client.callTool({ name: "list_peers", arguments: {} }) });
  say("sent", { result: await client.callTool({ name: "send_message", arguments: { to: recipient, message: "hello from the SDK" } }) });
  say("channel", { params: await noted });
  await client.close();
  say("closed", {});
} catch (error) {
  failed(error);
}
