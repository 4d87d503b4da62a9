//! MCP tools.
