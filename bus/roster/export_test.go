package roster

import "time"

// SetClock replaces the clocks of a member. It must be called before Acquire.
func SetClock(l *Lease, read func() (boot time.Duration, wall time.Time)) {
	l.now = func() instant {
		boot, wall := read()
		return instant{boot: boot, wall: wall}
	}
}
