package pgtest

import "os"

// SweepTemp removes what killed processes left.
func SweepTemp() error { return sweepTemp(os.TempDir()) }
