// Package oracle tests that values of every type arrive in the sink as PostgreSQL prints them, with PostgreSQL as the
// judge. Random values are written by COPY, INSERT and UPDATE, as columns and as keys, and travel through capture, the
// bus, apply and the StarRocks sink into the stand-in, wired as the service wires them. What the stand-in then holds is
// compared with what the server prints for the same row, by the rules of docs/types.md, which are written down here
// once more. A value that the rules refuse must be refused by an error that names its table, column and key.
//
// ORACLE_VALUES is how many values each server gets (default 20000), ORACLE_MAJORS lists the versions of PostgreSQL
// ("13,18" or "all"; default the oldest and the newest installed), ORACLE_SEED repeats a run, whose seed is in its log.
package oracle
