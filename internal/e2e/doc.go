// Package e2e tests dbmazz from the outside: the real binary as a process of its own, or
// as one for each stage, a real PostgreSQL with one database and slot per test, real
// NATS servers where the queue is elsewhere, and the stand-in for the sink inside the
// test, so that faults can be scripted. What counts in the end is always that source and
// sink hold equal rows, compared by code that shares nothing with the code under test.
//
// DBMAZZ_E2E_SEED repeats the random choices of a run, DBMAZZ_E2E_LOGS=1 shows the logs of
// the processes also where a test succeeds, DBMAZZ_TEST_PG_MAJOR chooses the version of
// PostgreSQL. Sizes: DBMAZZ_E2E_OUTAGE is the outage of the sink (90s makes
// wal_sender_timeout 30s), DBMAZZ_E2E_ROUNDS how often the tests that kill kill,
// DBMAZZ_E2E_ROWS the rows of the large transaction (10000000), DBMAZZ_E2E_TABLES the
// tables of one pipeline (1000).
package e2e
