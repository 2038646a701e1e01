package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// puller asks the server for messages: one request at a time, each bounded in bytes,
// the next when the one before is used up. So what is under way is bounded, and the
// server sends nothing to a consumer that does not ask. A waiting request is long; the
// server's heartbeats show that it still knows of it.
type puller struct {
	b       *Bus
	name    string // of the server's side
	inbox   string
	subject string
	sub     *nats.Subscription
	msgs    chan *nats.Msg
	status  chan nats.Status
	timer   *time.Timer

	number int    // of the request
	leader string // in a cluster, the server that keeps the consumer
	last   uint64 // sequence that came last
	// missing counts the looks that found something delivered which did not come.
	missing int
	left    int // messages that the request may still bring
	bytes   int // bound of a request
}

// errInterrupted means that deliveries may have been lost and must be asked for again.
var errInterrupted = errors.New("delivery was interrupted")

const (
	pullBatch     = 1024
	pullExpires   = 60 * time.Second
	pullHeartbeat = 10 * time.Second
	// pullStalled is how long a request may bring nothing although the server
	// has more before somebody looks.
	pullStalled = time.Second
	// pullSilence is how long not even a heartbeat may come.
	pullSilence = 2*pullHeartbeat + pullHeartbeat/2
	// pullProbe is how often somebody looks in a cluster while nothing is known
	// to be there: a server that dies takes the request with it without a word.
	pullProbe = 3 * time.Second
	// pollWait is how long TryNext waits for what the server is known to have.
	pollWait = 20 * time.Millisecond
)

func newPuller(b *Bus, consumer string) (*puller, error) {
	p := &puller{
		b: b, name: consumer, inbox: nats.NewInbox(),
		subject: "$JS.API.CONSUMER.MSG.NEXT." + b.cfg.streamName() + "." + consumer,
		msgs:    make(chan *nats.Msg, 4*pullBatch),
		timer:   time.NewTimer(time.Hour),
		bytes:   max(b.cfg.FetchBytes, int(b.nc.MaxPayload())+2*headerAllowance),
	}
	var err error
	if p.sub, err = b.nc.ChanSubscribe(p.inbox+".*", p.msgs); err != nil {
		return nil, fmt.Errorf("subscribe to deliveries: %w", err)
	}
	p.status = b.nc.StatusChanged(nats.CONNECTED)
	return p, nil
}

func (p *puller) request() error {
	data, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		MaxBytes  int           `json:"max_bytes"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{pullBatch, p.bytes, pullExpires, pullHeartbeat})
	if err != nil {
		return fmt.Errorf("encode pull request: %w", err)
	}
	p.number++
	p.left = pullBatch
	if err := p.b.nc.PublishRequest(p.subject, p.inbox+"."+strconv.Itoa(p.number), data); err != nil {
		return fmt.Errorf("request messages: %w: %w", err, errInterrupted)
	}
	return nil
}

// wait returns the next message of the subscription. more tells that the server has
// messages to deliver.
func (p *puller) wait(ctx context.Context, done <-chan struct{}, more bool) (*nats.Msg, error) {
	select {
	case m, ok := <-p.msgs:
		return p.received(m, ok)
	default:
	}
	begun := time.Now()
	for {
		limit := pullSilence
		switch {
		case more:
			limit = pullStalled
		case p.leader != "":
			limit = pullProbe
		}
		p.timer.Reset(limit)
		select {
		case m, ok := <-p.msgs:
			return p.received(m, ok)
		case <-p.timer.C:
			if time.Since(begun) >= pullSilence {
				return nil, errInterrupted
			}
			if err := p.probe(ctx); err != nil {
				return nil, err
			}
		case <-p.status:
			// The request was made over the old connection.
			return nil, errInterrupted
		case <-done:
			return nil, ErrClosed
		case <-p.b.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// probe finds out why nothing comes although there may be more. A request whose bytes
// are used up exactly has ended without a word; one that another server had taken, and
// what it had sent, is lost with it; and one large message over a slow connection takes
// its time, and keeps the answer to this waiting as well.
func (p *puller) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pullStalled)
	defer cancel()
	consumer, err := p.b.stream.Consumer(ctx, p.name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return errInterrupted
	}
	if err != nil {
		return nil // No answer is no news.
	}
	info := consumer.CachedInfo()
	if leader := leaderOf(info); leader != p.leader && leader != "" {
		if p.leader != "" {
			return errInterrupted
		}
		p.leader = leader
	}
	if info.Delivered.Stream > p.last {
		// The answer came over the same connection, so what was sent long
		// before it is lost.
		if p.missing++; p.missing > 1 {
			return errInterrupted
		}
		return nil
	}
	if info.NumWaiting > 0 {
		return nil
	}
	return p.request()
}

// leaderOf returns the server that answers for the consumer, empty if it is on its own.
func leaderOf(info *jetstream.ConsumerInfo) string {
	if info.Cluster == nil || info.Cluster.Name == "" {
		return ""
	}
	return info.Cluster.Leader
}

func (p *puller) received(m *nats.Msg, ok bool) (*nats.Msg, error) {
	if !ok {
		return nil, ErrClosed
	}
	return m, nil
}

// poll returns a message that is here, or comes within a moment if there is more.
func (p *puller) poll(more bool) *nats.Msg {
	select {
	case m := <-p.msgs:
		return m
	default:
	}
	if !more {
		return nil
	}
	p.timer.Reset(pollWait)
	select {
	case m := <-p.msgs:
		return m
	case <-p.timer.C:
		return nil
	}
}

// accept handles the server's words about the request. payload is true for a message
// of the stream.
func (p *puller) accept(m *nats.Msg) (payload bool, err error) {
	status := m.Header.Get("Status")
	if status == "" || len(m.Data) > 0 {
		p.missing = 0
		if p.left--; p.left == 0 {
			return true, p.request()
		}
		return true, nil
	}
	if m.Subject != p.inbox+"."+strconv.Itoa(p.number) {
		return false, nil // about an older request
	}
	text := m.Header.Get("Description")
	switch {
	case status == "100":
		// What was delivered came before this, or is lost.
		last, _ := strconv.ParseUint(m.Header.Get("Nats-Last-Stream"), 10, 64) // Without one it tells nothing.
		if last > p.last {
			p.missing++
		}
		if p.missing > 1 {
			return false, errInterrupted
		}
		return false, nil
	case status == "408", status == "404",
		status == "409" && (strings.Contains(text, "MaxBytes") || strings.Contains(text, "Batch Completed")):
		return false, p.request()
	default:
		// No responders, consumer deleted, leadership change: look and start over.
		p.b.log.Debug("pull request ended", "status", status, "text", text)
		return false, errInterrupted
	}
}

func (p *puller) close() {
	_ = p.sub.Unsubscribe()
	p.b.nc.RemoveStatusListener(p.status)
	p.timer.Stop()
}
