// Package compare checks that a sink holds exactly the rows of a source.
//
// Both sides are read in key order, one row at a time, and every column of every row is compared by value: a number by
// what it is worth, a time by its instant, a document by its content, everything else byte by byte. The rules are
// written down here once more, apart from those of the sink, so that one mistake cannot hide the other.
//
// A row that was deleted must still be in the sink, marked as deleted, or with hard deletes be gone; a row that never was
// must not be there at all.
package compare
