//go:build !linux

package roster

import "time"

// sinceBoot counts from the start of the process. Sleep of the machine shows in the
// wall clock only.
func sinceBoot() time.Duration { return time.Since(started) }

var started = time.Now()
