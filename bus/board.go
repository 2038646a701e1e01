package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Bounds of the live board.
const (
	// BoardTTL is how long an announcement stays that is not repeated. It should be
	// repeated at least three times as often.
	BoardTTL = 30 * time.Second
	// BoardValueBytes bounds the value of an announcement.
	BoardValueBytes = 256 << 10

	boardBytes    = 16 << 20 // of all announcements
	boardPatience = time.Second
)

// Announcement is what somebody says of himself on the live board.
type Announcement struct {
	Name  string
	Value []byte
	// Gone tells that it was withdrawn, or not repeated for BoardTTL. There is no
	// value then.
	Gone bool
}

// board is the bus's side of the live board: a bucket in the memory of the server, whose
// keys vanish by themselves. It vanishes itself when the server is restarted, and is made
// again by whoever needs it next.
type board struct {
	ttl time.Duration // zero means BoardTTL

	mu   sync.Mutex
	kv   jetstream.KeyValue
	held *heldView
}

func (b *Bus) boardTTL() time.Duration { return orDefault(b.board.ttl, BoardTTL) }

func (c *Config) boardName() string { return c.bucketName() + "_live" }

// openBoard returns the bucket of the board, which it makes if it is not there.
func (b *Bus) openBoard(ctx context.Context) (jetstream.KeyValue, error) {
	b.board.mu.Lock()
	kv := b.board.kv
	b.board.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	name := b.cfg.boardName()
	kv, err := b.js.KeyValue(ctx, name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		kv, err = b.createBoard(ctx, name, jetstream.MemoryStorage)
		if lacksMemory(err) {
			// Servers and accounts without memory for streams are common.
			kv, err = b.createBoard(ctx, name, jetstream.FileStorage)
		}
		if errors.Is(err, jetstream.ErrBucketExists) {
			kv, err = b.js.KeyValue(ctx, name) // somebody else was faster
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open live board %s: %w", name, err)
	}
	b.board.mu.Lock()
	defer b.board.mu.Unlock()
	b.board.kv = kv
	return kv, nil
}

// lacksMemory reports whether the server, or what it allows the account, has no room for
// a stream in memory.
func lacksMemory(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == codeMemoryExceeded || isFull(err))
}

const codeMemoryExceeded = 10028

func (b *Bus) createBoard(ctx context.Context, name string, storage jetstream.StorageType) (jetstream.KeyValue, error) {
	return b.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: name, Description: "who is there in the dbmazz pipeline " + b.cfg.Pipeline,
		History: 1, TTL: b.boardTTL(), MaxBytes: boardBytes, Storage: storage, Replicas: b.replicas(),
	})
}

// replicas returns how many copies what stands beside the stream has: as the stream.
func (b *Bus) replicas() int { return max(1, b.stream.CachedInfo().Config.Replicas) }

// dropBoard forgets the bucket, which has vanished.
func (b *Bus) dropBoard() {
	b.board.mu.Lock()
	defer b.board.mu.Unlock()
	b.board.kv = nil
}

// Announce puts the value under the name on the live board, where it stays for BoardTTL.
// It gives up after a second: the board is for people, for holds and for finding each
// other, and never something to wait for. The name may be of any bytes, the value of at
// most BoardValueBytes.
func (b *Bus) Announce(ctx context.Context, name string, value []byte) error {
	if len(value) > BoardValueBytes {
		return fmt.Errorf("announce %q: it has %d bytes, at most %d are allowed", name, len(value), BoardValueBytes)
	}
	return b.onBoard(ctx, "announce", name, func(ctx context.Context, kv jetstream.KeyValue, key string) error {
		_, err := kv.Put(ctx, key, value)
		return err
	})
}

// Withdraw takes the name off the live board. One that is not there is no error.
func (b *Bus) Withdraw(ctx context.Context, name string) error {
	return b.onBoard(ctx, "withdraw", name, func(ctx context.Context, kv jetstream.KeyValue, key string) error {
		return kv.Delete(ctx, key)
	})
}

// onBoard does one thing with one key, again if the bucket has vanished.
func (b *Bus) onBoard(ctx context.Context, verb, name string, do func(context.Context, jetstream.KeyValue, string) error) error {
	key, err := boardKey(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, boardPatience)
	defer cancel()
	for delay := holdMin; ; delay = min(2*delay, holdMax) {
		err := b.tryOnBoard(ctx, key, do)
		if err == nil {
			return nil
		}
		// No answer may also mean that the bucket has vanished.
		b.dropBoard()
		if !isUnanswered(err) && !errors.Is(err, jetstream.ErrStreamNotFound) || b.pause(ctx, delay) != nil {
			return fmt.Errorf("%s %q: %w", verb, name, err)
		}
	}
}

func (b *Bus) tryOnBoard(ctx context.Context, key string, do func(context.Context, jetstream.KeyValue, string) error) error {
	if err := b.awaitConnection(ctx); err != nil {
		return err
	}
	// A question that was under way when the connection broke is never answered.
	ctx, cancel := context.WithTimeout(ctx, boardPatience/3)
	defer cancel()
	kv, err := b.openBoard(ctx)
	if err != nil {
		return err
	}
	return do(ctx, kv, key)
}

const keyNameMax = 200

// boardKey makes a key of any name: what keys may not hold becomes = and two digits.
func boardKey(name string) (string, error) {
	if name == "" || len(name) > keyNameMax {
		return "", fmt.Errorf("announce %q: a name has 1 to %d bytes", name, keyNameMax)
	}
	var key strings.Builder
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_',
			c == '.' && i > 0 && i < len(name)-1 && name[i-1] != '.':
			key.WriteByte(c)
		default:
			fmt.Fprintf(&key, "=%02X", c)
		}
	}
	return key.String(), nil
}

// nameOf is the inverse of boardKey; what is not of its making stays as it is.
func nameOf(key string) string {
	var name strings.Builder
	for i := 0; i < len(key); i++ {
		if key[i] == '=' && i+2 < len(key) {
			if c, err := strconv.ParseUint(key[i+1:i+3], 16, 8); err == nil {
				name.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		name.WriteByte(key[i])
	}
	return name.String()
}
