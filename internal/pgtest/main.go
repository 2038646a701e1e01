package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
)

// sharedServer is a server that the tests of this process share, started by the first one that asks.
type sharedServer struct {
	once   sync.Once
	server *Server
	err    error
}

var sharedServers = struct {
	sync.Mutex
	byMajor map[int]*sharedServer
}{byMajor: map[int]*sharedServer{}}

func shared(t testing.TB, major int) *Server {
	t.Helper()
	if major == 0 {
		var err error
		if major, err = DefaultMajor(); err != nil {
			t.Fatal(err)
		}
	}
	sharedServers.Lock()
	entry := sharedServers.byMajor[major]
	if entry == nil {
		entry = &sharedServer{}
		sharedServers.byMajor[major] = entry
	}
	sharedServers.Unlock()
	entry.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startWithin)
		defer cancel()
		entry.server, entry.err = Start(ctx, Options{Major: major})
	})
	if entry.err != nil {
		t.Fatal(entry.err)
	}
	return entry.server
}

// Shutdown closes the shared servers and removes every temporary folder of this process.
func Shutdown() error {
	sharedServers.Lock()
	defer sharedServers.Unlock()
	var errs []error
	for major, entry := range sharedServers.byMajor {
		if entry.server != nil {
			errs = append(errs, entry.server.Close())
		}
		delete(sharedServers.byMajor, major)
	}
	return errors.Join(append(errs, removeTemp())...)
}

// Suite is a test run that closes the shared servers before it reports its result.
type Suite struct {
	tests interface{ Run() int }
}

// Tests wraps the tests of a package for goleak.VerifyTestMain, which wants servers closed before it looks.
func Tests(m *testing.M) Suite { return Suite{tests: m} }

// Run runs the tests and closes the shared servers.
func (s Suite) Run() int {
	code := s.tests.Run()
	if err := Shutdown(); err != nil {
		fmt.Fprintf(os.Stderr, "close the shared PostgreSQL servers: %v\n", err)
		return max(code, 1)
	}
	return code
}

// Main is the body of a TestMain: it runs the tests, closes the shared servers, and exits.
func Main(m *testing.M) { os.Exit(Tests(m).Run()) }
