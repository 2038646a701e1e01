package capture

import "time"

// PauseStreaming sets for how long streaming is given up after a failure.
func (c *Capture) PauseStreaming(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spooling.first = d
}
