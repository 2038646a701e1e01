// Package shop is the demo's workload: the tables of a small shop and sessions that change them.
//
// The changes are the ones that are easy to replicate wrongly: updates that leave large values alone, changes of keys,
// keys that come back, rows that live for one transaction, savepoints that are rolled back, truncates, several
// sessions that update the same rows, and text that looks like something else.
//
// A seed decides every change. Each session works on rows of its own, apart from the stock, whose numbers are only
// added to; so the outcome is the same whatever the order in which the sessions commit. The ledger knows, without
// asking any database, which keys were ever committed and which of them are left.
package shop
