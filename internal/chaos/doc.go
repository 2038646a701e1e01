// Package chaos holds the chaos suite: random histories in a real PostgreSQL against random faults, with the real
// binary in processes of its own, until everything is healed and the sink must hold what the source holds, row by row.
//
// One seed decides the layout, the workload and the schedule of faults. What it cannot decide is how the threads of a
// dozen processes interleave, so a seed that fails may need several runs to fail again.
//
// The binary is built with the tag chaos, which lets the suite end a process between any two steps of a protocol; see
// package killpoint. The docs/reliability.md tells how to run it and what it has found.
package chaos
