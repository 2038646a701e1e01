package oracle_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dbmazz/dbmazz/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(suite{pgtest.Tests(m)}) }

// suite closes the servers of the tests before it reports.
type suite struct{ pgtest.Suite }

func (s suite) Run() int {
	code := s.Suite.Run()
	if err := servers.close(); err != nil {
		fmt.Fprintln(os.Stderr, "close the PostgreSQL servers:", err)
		return max(code, 1)
	}
	return code
}

// serverSet holds one server for each version that a test has asked for.
type serverSet struct {
	mu      sync.Mutex
	byMajor map[int]*pgtest.Server
}

var servers = serverSet{byMajor: map[int]*pgtest.Server{}}

func (s *serverSet) of(t testing.TB, major int) *pgtest.Server {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if server := s.byMajor[major]; server != nil {
		return server
	}
	const startWithin = 2 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	server, err := pgtest.Start(ctx, pgtest.Options{Major: major})
	if err != nil {
		t.Fatal(err)
	}
	s.byMajor[major] = server
	return server
}

func (s *serverSet) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, server := range s.byMajor {
		errs = append(errs, server.Close())
	}
	return errors.Join(errs...)
}
