package bus

import "time"

// SetPatience shortens the wait for answers. It must be called before the bus is used.
func SetPatience(b *Bus, d time.Duration) { b.patience = d }
