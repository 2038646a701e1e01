// Package capture turns the changes of a PostgreSQL database into frames of a stream.
//
// It promises that no committed change of a configured table is lost or published
// twice, whatever is killed or cut, as long as PostgreSQL keeps the slot; and that the
// slot is never confirmed past what the sink has committed. When the slot is gone, was
// moved by somebody else, or belongs to another server, it refuses to stream and says
// what to do.
//
// A [Capture] runs one session after another. A session checks the server and sets up
// what is missing (setup.go), compares server, stream and sink with what it remembers
// (identity.go), and then reads the replication socket itself (socket.go), decodes each
// message in place and writes the rows into frames (session.go, rows.go). The slot
// repeats everything since its confirmed LSN at the start of a session; what the
// stream already holds is skipped by its position. Beside the reader one goroutine
// reports to the server (report.go), so that a reader that is blocked by back-pressure
// never lets the connection time out. What may be reported is decided by one pure type
// (confirm.go). Any error ends the session, never the process.
//
// Servers that can are asked to send large transactions while they run (stream.go). Until
// the commit these are kept in a file without a name (spool.go); then they take the same
// path as all others, so that the stream does not show whether a transaction was streamed.
// When that fails, because the disk is full or the server errs, the next sessions do
// without for a while (stream_state.go).
//
// Positions count the changes of configured tables only. Which tables those are is
// therefore remembered with the commit LSN from which it holds, so that a transaction
// that is cut by a crash is counted the same way again (record.go).
package capture
