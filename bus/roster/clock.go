package roster

import "time"

// instant is a moment by the clocks of this host.
type instant struct {
	boot time.Duration // since the host has started, sleep included
	wall time.Time     // without a monotonic reading
}

// since returns how long ago the earlier instant may have been. Of two clocks that
// disagree the one that says more is believed: a leader must not think too late that
// its time is up.
func (i instant) since(earlier instant) time.Duration {
	return max(i.boot-earlier.boot, i.wall.Sub(earlier.wall))
}

// atLeast returns how long ago the earlier instant was by the clock that cannot be set:
// a standby must not think too early that a leader's time is up.
func (i instant) atLeast(earlier instant) time.Duration { return i.boot - earlier.boot }

func now() instant { return instant{boot: sinceBoot(), wall: time.Now().Round(0)} }
