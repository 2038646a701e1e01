// Package postgres is a sink that writes to PostgreSQL. It proves the port: what the
// suite of apply/sinktest asks for holds against a database that nobody here wrote. It
// cannot be chosen with SINK_TYPE yet.
//
// A batch is one transaction, and its ID is inserted into the table dbmazz_batches in
// the same one. A batch that is there already is done, so each has its effect once.
// Deletes remove rows. Of the audit columns there is the version, the commit LSN of a
// row's last change, by which a guarded batch leaves later rows alone; tables without a
// key have the position of each change as their primary key.
package postgres
