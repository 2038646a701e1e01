// Package e2e tests dbmazz from the outside: the real binary as a process of its own,
// a real PostgreSQL with one database and slot per test, and the stand-in for the sink
// inside the test, so that faults can be scripted. What counts in the end is always
// that source and sink hold equal rows, compared by code that shares nothing with the
// code under test.
//
// DBMAZZ_E2E_SEED repeats the random choices of a run, DBMAZZ_E2E_OUTAGE lengthens the
// outage of the sink (90s makes wal_sender_timeout 30s), DBMAZZ_TEST_PG_MAJOR chooses
// the version of PostgreSQL.
package e2e
