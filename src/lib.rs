//! acode: a durable task queue and pre-fork worker pool for one Linux server.
