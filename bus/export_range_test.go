package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// SetBoardTTL shortens the life of announcements. It must be called before the bus is used.
func SetBoardTTL(b *Bus, d time.Duration) { b.board.ttl = d }

// StopServer ends the embedded server as if it had failed; RestartServer starts it again.
func StopServer(b *Bus) {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.server.srv.Shutdown()
	b.server.srv.WaitForShutdown()
	b.server.srv = nil
}

// Purge removes the messages up to the sequence, as the janitor does.
func Purge(ctx context.Context, b *Bus, upTo uint64) error {
	return b.stream.Purge(ctx, jetstream.WithPurgeSequence(upTo+1))
}

// Consumers counts the consumers of the stream on the server.
func Consumers(ctx context.Context, b *Bus) (int, error) {
	info, err := b.streamInfo(ctx)
	if err != nil {
		return 0, err
	}
	return info.State.Consumers, nil
}

// LetterMessages counts the messages of the dead-letter stream.
func LetterMessages(ctx context.Context, b *Bus) (uint64, error) {
	stream, err := b.js.Stream(ctx, b.cfg.lettersName())
	if err != nil {
		return 0, err
	}
	return stream.CachedInfo().State.Msgs, nil
}

// RemoveLetterHead leaves the parts of a letter.
func RemoveLetterHead(ctx context.Context, b *Bus, id string) error {
	return removeLetters(ctx, b, b.DeadLetters().letterSubject(id))
}

// RemoveLetterParts leaves the heads of all letters.
func RemoveLetterParts(ctx context.Context, b *Bus) error {
	return removeLetters(ctx, b, b.cfg.lettersSubject()+".part.>")
}

func removeLetters(ctx context.Context, b *Bus, subject string) error {
	stream, err := b.js.Stream(ctx, b.cfg.lettersName())
	if err != nil {
		return err
	}
	return stream.Purge(ctx, jetstream.WithPurgeSubject(subject))
}

// DeleteKey deletes a key of the state bucket.
func DeleteKey(ctx context.Context, b *Bus, key string) error { return b.bucket.Delete(ctx, key) }

// DeleteBoard deletes the bucket of the board, as somebody does by hand.
func DeleteBoard(ctx context.Context, b *Bus) error {
	return b.js.DeleteKeyValue(ctx, b.cfg.boardName())
}
