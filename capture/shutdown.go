package capture

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// errShutdown ends a session for the sake of a server that is being shut down. Its
// walsender waits until everything it has sent is confirmed, which for as long as the sink
// is away is never, and the server waits for its walsender. What is not confirmed stays in
// the slot.
//
// https://www.postgresql.org/docs/current/server-shutdown.html; WalSndDone in walsender.c.
var errShutdown = errors.New("the server is shutting down and would wait for changes that the sink has not applied; they stay in the slot")

const (
	// shutdownAsk is how long an answer to the question may take, shutdownEvery how
	// often it is asked at most.
	shutdownAsk   = 2 * time.Second
	shutdownEvery = time.Second
)

// cannotConnectNow is the SQLSTATE with which a server refuses connections while it starts
// or shuts down. One that streams does not start.
const cannotConnectNow = "57P03"

// shutsDown reports whether the server takes no connections any more because it is being
// shut down. Without a clear answer it is not.
func (s *source) shutsDown(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, shutdownAsk)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, &s.config().Config)
	if err == nil {
		_ = conn.Close(ctx) // It was made for the question.
		return false
	}
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && refused.Code == cannotConnectNow
}

// makeWay returns errShutdown if the server is being shut down. A walsender that waits for
// the last confirmation asks for it again and again, and otherwise hardly ever. Where the
// reader cannot take what it asks, as while a full disk keeps the stream from being opened,
// that is reason enough. It belongs to the reporter.
func (s *session) makeWay(ctx context.Context) error {
	if time.Since(s.askedShutdown) < shutdownEvery {
		return nil
	}
	s.askedShutdown = time.Now()
	if s.c.source.shutsDown(ctx) {
		return errShutdown
	}
	return nil
}

// outstanding reports whether the server has sent what is not confirmed.
func (s *session) outstanding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.confirm.open()
}

// stuck reports whether the reader has read nothing since it was asked last, and is kept from
// it. It belongs to the reporter.
func (s *session) stuck() bool {
	before := s.heardBefore
	s.heardBefore = s.sock.heard.Load()
	return s.heardBefore == before && !s.sock.filling.Load()
}
