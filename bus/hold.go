package bus

import (
	"context"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/dbmazz/dbmazz/bus/cdc"
)

// holdPrefix begins the names under which readers announce what they have yet to read.
// The value is a sequence in decimal: what follows it must stay.
const holdPrefix = "hold."

// holdSettle is how long after the first look at the board nothing may be purged: a
// server that was restarted has an empty board until everybody has announced again.
const holdSettle = 5 * time.Second

// hold is the announcement of one reader.
type hold struct {
	b     *Bus
	name  string
	after atomic.Uint64
	// Of the frame that was delivered last, for the goroutine that reads.
	begun bool
	last  cdc.Position
	upTo  cdc.LSN

	quit chan struct{}
	done chan struct{}
	once sync.Once
}

func (h *hold) value(after uint64) []byte { return strconv.AppendUint(nil, after, 10) }

// run repeats the announcement until end, and at once after a reconnect.
func (h *hold) run() {
	defer close(h.done)
	status := h.b.nc.StatusChanged(nats.CONNECTED)
	defer h.b.nc.RemoveStatusListener(status)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // It ends by Close.
	defer cancel()
	timer := time.NewTimer(h.b.boardTTL() / 6)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case _, ok := <-status:
			if !ok {
				status = nil
			}
		case <-h.quit:
			bounded, cancel := context.WithTimeout(ctx, boardPatience)
			defer cancel()
			if err := h.b.Withdraw(bounded, h.name); err != nil {
				h.b.log.DebugContext(ctx, "hold is left to run out", "err", err)
			}
			return
		case <-h.b.done:
			return
		}
		next := h.b.boardTTL() / 6
		if err := h.b.Announce(ctx, h.name, h.value(h.after.Load())); err != nil {
			// A reader that is overtaken by a purge gets an error that says so.
			h.b.log.WarnContext(ctx, "history is not held", "err", err)
			next /= 8
		}
		timer.Reset(next)
	}
}

// end withdraws the hold.
func (h *hold) end() {
	h.once.Do(func() { close(h.quit) })
	<-h.done
}

// heldView is what the holds on the board allow.
type heldView struct {
	mu     sync.Mutex
	holds  map[string]uint64
	synced time.Time // when the board was read as a whole for the first time
}

// Held returns the highest sequence up to which the holds on the live board allow to
// purge, and false if there is no hold. It is cheap: from the first call on, the bus
// watches the board. Until it has seen all of it, and five seconds longer, nothing may be
// purged: 0 and true. A hold that cannot be read holds everything.
func (b *Bus) Held() (sequence uint64, ok bool) {
	b.board.mu.Lock()
	v := b.board.held
	if v == nil {
		v = &heldView{holds: map[string]uint64{}}
		b.board.held = v
		go v.follow(b)
	}
	b.board.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.synced.IsZero() || time.Since(v.synced) < min(holdSettle, b.boardTTL()/6) {
		return 0, true
	}
	sequence = math.MaxUint64
	for _, after := range v.holds {
		sequence = min(sequence, after)
	}
	if len(v.holds) == 0 {
		return 0, false
	}
	return sequence, true
}

// follow keeps the view until the bus is closed.
func (v *heldView) follow(b *Bus) {
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // It ends by Close.
	defer cancel()
	f := &follower{b: b, cards: map[string]*card{}, emit: v.take, synced: v.complete}
	f.run(ctx)
}

func (v *heldView) take(a Announcement) {
	if !strings.HasPrefix(a.Name, holdPrefix) {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if a.Gone {
		delete(v.holds, a.Name)
		return
	}
	after, err := strconv.ParseUint(string(a.Value), 10, 64)
	if err != nil {
		after = 0
	}
	v.holds[a.Name] = after
}

func (v *heldView) complete() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.synced.IsZero() {
		v.synced = time.Now()
	}
}
