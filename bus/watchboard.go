package bus

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// WatchBoard delivers the announcements on the live board, those that are there first,
// and then each that is new, changed or gone, until ctx is done or the bus is closed; the
// channel is closed then. A slow receiver gets the latest of each name only. The watch
// survives reconnects and restarts of the server; what was withdrawn meanwhile is
// reported as gone, at the latest after BoardTTL.
func (b *Bus) WatchBoard(ctx context.Context) (<-chan Announcement, error) {
	if _, err := b.openBoard(ctx); err != nil {
		return nil, err
	}
	box := &outbox{latest: map[string]Announcement{}, wake: make(chan struct{}, 1)}
	f := &follower{b: b, cards: map[string]*card{}, emit: box.put}
	out := make(chan Announcement)
	go func() {
		defer close(out)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.run(ctx)
		}()
		box.deliver(ctx, b.done, out)
		cancel()
		<-ended
	}()
	return out, nil
}

// outbox keeps what a slow receiver has yet to get: the latest of each name.
type outbox struct {
	mu     sync.Mutex
	order  []string
	latest map[string]Announcement
	wake   chan struct{}
}

func (o *outbox) put(a Announcement) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.latest[a.Name]; !ok {
		o.order = append(o.order, a.Name)
	}
	o.latest[a.Name] = a
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *outbox) take() (Announcement, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.order) == 0 {
		return Announcement{}, false
	}
	a := o.latest[o.order[0]]
	delete(o.latest, a.Name)
	o.order = o.order[1:]
	return a, true
}

func (o *outbox) deliver(ctx context.Context, done <-chan struct{}, out chan<- Announcement) {
	for {
		a, ok := o.take()
		if !ok {
			select {
			case <-o.wake:
				continue
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case out <- a:
		case <-done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// follower keeps a copy of the board.
type follower struct {
	b     *Bus
	emit  func(Announcement)
	cards map[string]*card
	// synced is called when the copy is complete, for the first time or again.
	synced func()

	life time.Time // when the bucket that is followed was made
	last uint64    // the last revision of it that was seen
	idle int       // looks at the bucket in which it was ahead of last
}

// card is one announcement.
type card struct {
	life     time.Time
	revision uint64
	at       time.Time // when it was seen last, by the clock of this process
}

// run follows the board until ctx is done or the bus is closed.
func (f *follower) run(ctx context.Context) {
	for delay := holdMin; ; delay = min(2*delay, holdMax) {
		began := time.Now()
		err := f.follow(ctx)
		f.expire()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.b.log.DebugContext(ctx, "live board is interrupted", "err", err)
		}
		if time.Since(began) > holdMax {
			delay = holdMin
		}
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-f.b.done:
			timer.Stop()
			return
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// follow returns when the watch must be begun again.
func (f *follower) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	status := f.b.nc.StatusChanged(nats.CONNECTED)
	defer f.b.nc.RemoveStatusListener(status)
	if err := f.b.awaitConnection(ctx); err != nil {
		return err
	}
	f.b.dropBoard()
	opening, opened := context.WithTimeout(ctx, boardPatience)
	defer opened()
	kv, err := f.b.openBoard(opening)
	if err != nil {
		return err
	}
	info, err := f.info(ctx)
	if err != nil {
		return err
	}
	if !info.Created.Equal(f.life) {
		f.life, f.last = info.Created, 0
	}
	f.idle = 0
	// The context of a watch lives as long as the watch, its first question must not.
	alarm := time.AfterFunc(boardPatience, cancel)
	watcher, err := kv.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("watch live board: %w", err)
	}
	alarm.Stop()
	defer func() { _ = watcher.Stop() }()
	ticker := time.NewTicker(f.b.boardTTL() / 6)
	defer ticker.Stop()
	for {
		select {
		case entry, ok := <-watcher.Updates():
			if !ok {
				return nil
			}
			if entry != nil {
				f.entry(entry)
				continue
			}
			if again, err := f.look(ctx); again || err != nil {
				return err
			}
			if f.synced != nil {
				f.synced()
			}
		case <-ticker.C:
			if again, err := f.look(ctx); again || err != nil {
				return err
			}
		case <-status:
			// The client would notice by missing heartbeats, much later.
			return nil
		case <-f.b.done:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *follower) entry(entry jetstream.KeyValueEntry) {
	name := nameOf(entry.Key())
	f.last = max(f.last, entry.Revision())
	have := f.cards[name]
	if have != nil && have.life.Equal(f.life) && entry.Revision() <= have.revision {
		return
	}
	if entry.Operation() != jetstream.KeyValuePut {
		f.gone(name)
		return
	}
	f.cards[name] = &card{life: f.life, revision: entry.Revision(), at: time.Now()}
	f.emit(Announcement{Name: name, Value: entry.Value()})
}

func (f *follower) gone(name string) {
	if f.cards[name] == nil {
		return
	}
	delete(f.cards, name)
	f.emit(Announcement{Name: name, Gone: true})
}

// info reads the bucket with the names that are on it.
func (f *follower) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, boardPatience)
	defer cancel()
	stream, err := f.b.js.Stream(ctx, "KV_"+f.b.cfg.boardName())
	if err != nil {
		return nil, fmt.Errorf("read live board: %w", err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter("$KV."+f.b.cfg.boardName()+".>"))
	if err != nil {
		return nil, fmt.Errorf("read live board: %w", err)
	}
	return info, nil
}

// look compares the copy with the board. again tells that the watch must be begun again:
// it is of a bucket that is no more, or brings nothing although there is something.
func (f *follower) look(ctx context.Context) (again bool, err error) {
	info, err := f.info(ctx)
	if err != nil {
		return false, err
	}
	if !info.Created.Equal(f.life) {
		return true, nil
	}
	for name, c := range f.cards {
		key, err := boardKey(name)
		if err != nil || !c.life.Equal(f.life) || c.revision > info.State.LastSeq {
			continue
		}
		if _, there := info.State.Subjects["$KV."+f.b.cfg.boardName()+"."+key]; !there {
			f.gone(name)
		}
	}
	f.expire()
	if f.idle++; info.State.LastSeq <= f.last {
		f.idle = 0
	}
	return f.idle > 1, nil
}

// expire ends what was not repeated although the board cannot say so: it is not
// reachable, or has vanished with all that was on it.
func (f *follower) expire() {
	for name, c := range f.cards {
		if age := time.Since(c.at); age > f.b.boardTTL() && (age > 2*f.b.boardTTL() || !c.life.Equal(f.life)) {
			f.gone(name)
		}
	}
}
