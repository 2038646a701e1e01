package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Bus is the stream and the state bucket of one pipeline. Its methods may be called
// concurrently once Open has returned.
type Bus struct {
	cfg Config
	log *slog.Logger
	// patience bounds how long an answer of the server may take before the bus
	// goes and looks.
	patience time.Duration

	server *embedded // nil with a URL, and when attached
	link   link
	nc     *nats.Conn
	js     jetstream.JetStream
	stream jetstream.Stream
	bucket jetstream.KeyValue
	epoch  string

	mu        sync.Mutex
	opened    bool
	publisher *Publisher
	done      chan struct{} // closed by Close
	wanted    chan struct{} // room in the stream, told to the janitor
	board     board         // the live board
	closeOnce sync.Once
	closeErr  error
}

const (
	defaultPatience = 5 * time.Second
	// restartAge is how long a server must have run before it is replaced.
	restartAge = 3 * time.Second
)

// New checks the configuration. It does no I/O; Open does.
func New(cfg Config) (*Bus, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure bus: %w", err)
	}
	return &Bus{
		cfg: cfg, log: cfg.Logger.With("component", "bus"),
		patience: defaultPatience, done: make(chan struct{}), wanted: make(chan struct{}, 1),
	}, nil
}

// Open starts the embedded server, or connects to the given one, and makes sure that
// stream and bucket are there and as they must be. It may be called once; after an
// error the bus is closed, and the caller may try another one later. Errors to tell
// apart: *InUseError, *ConnectError, ErrNoStream, *StreamLostError; the last does not
// pass by itself.
func (b *Bus) Open(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened {
		return errors.New("open bus: it was opened before")
	}
	b.opened = true
	if err := b.open(ctx); err != nil {
		b.closeOnce.Do(func() {
			close(b.done)
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
			defer cancel()
			err = errors.Join(err, b.shutdown(bounded))
		})
		return fmt.Errorf("open bus of pipeline %s: %w", b.cfg.Pipeline, err)
	}
	return nil
}

func (b *Bus) open(ctx context.Context) error {
	if b.cfg.URL == "" && !b.cfg.Attach {
		var err error
		if b.server, err = startEmbedded(ctx, &b.cfg, b.log); err != nil {
			return err
		}
	}
	if err := b.connect(); err != nil {
		return err
	}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if b.server != nil {
		b.server.watch(b.done) //nolint:contextcheck // It lives until Close, not as long as ctx.
	}
	return nil
}

// Close ends publisher, connection and server. It returns when the server's files are
// closed, or when ctx is done; either way nothing that was stored is lost.
func (b *Bus) Close(ctx context.Context) error {
	b.closeOnce.Do(func() {
		close(b.done)
		b.mu.Lock()
		p := b.publisher
		b.mu.Unlock()
		if p != nil {
			p.close.Do(func() { close(p.quit) })
			select {
			case <-p.dead:
			case <-ctx.Done():
			}
		}
		b.closeErr = b.shutdown(ctx)
	})
	return b.closeErr
}

func (b *Bus) shutdown(ctx context.Context) error {
	if b.nc != nil {
		b.nc.Close()
	}
	if b.server == nil {
		return nil
	}
	return b.server.stop(ctx)
}

// Epoch returns the random id of this life of the stream. A stream that was deleted
// and made again has another one.
func (b *Bus) Epoch() string { return b.epoch }

// ListenAddr returns the address on which the embedded server takes connections of other
// hosts, empty if it does not. A port 0 in Config.Listen is the one that was chosen.
func (b *Bus) ListenAddr() string {
	if b.server == nil {
		return ""
	}
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	return b.server.listen
}

// Info is the state of the stream, for the status.
type Info struct {
	Messages      uint64
	Bytes         uint64
	MaxBytes      int64
	FirstSequence uint64
	LastSequence  uint64
	OldestAt      time.Time // zero if the stream is empty
	// AckFloor is the last sequence that apply's consumer has acknowledged, zero
	// without one. Apply's checkpoint is the truth; this is for people.
	AckFloor uint64
	// DiskFreeBytes is the free space of the data folder, -1 with a URL: it is the
	// servers' disk that matters there, which only they know.
	DiskFreeBytes int64
}

// Info reads the state of the stream.
func (b *Bus) Info(ctx context.Context) (Info, error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return Info{}, err
	}
	s := info.State
	result := Info{
		Messages: s.Msgs, Bytes: s.Bytes, MaxBytes: info.Config.MaxBytes,
		FirstSequence: s.FirstSeq, LastSequence: s.LastSeq, DiskFreeBytes: -1,
	}
	if s.Msgs > 0 {
		result.OldestAt = s.FirstTime
	}
	var consumer jetstream.Consumer
	err = b.ask(ctx, func(ctx context.Context) error {
		consumer, err = b.stream.Consumer(ctx, consumerName)
		return err
	})
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
	case err != nil:
		return Info{}, fmt.Errorf("read consumer %s: %w", consumerName, err)
	default:
		result.AckFloor = consumer.CachedInfo().AckFloor.Stream
	}
	if b.local() {
		if result.DiskFreeBytes, err = freeBytes(b.cfg.DataDir); err != nil {
			return Info{}, err
		}
	}
	return result, nil
}

// local reports whether the server's files are on this host, in DataDir.
func (b *Bus) local() bool { return b.cfg.URL == "" }

// heal is called after an answer did not come. It replaces the embedded server if that
// says that it is broken, and a connection over which nothing comes any more. Other
// servers are somebody else's to heal.
func (b *Bus) heal(ctx context.Context) error {
	if b.server == nil {
		b.link.check(b.nc, b.patience)
		return nil
	}
	problem := b.server.healthError()
	if problem == nil {
		return nil
	}
	return b.server.restart(ctx, restartAge, problem.Error())
}
