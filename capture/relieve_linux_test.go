package capture

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"testing"
	"time"
)

// tcpPair returns two ends of a connection.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if client, err = net.Dial("tcp", listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// numbered makes a message whose payload is a number and some bytes.
func numbered(n uint32, size int) []byte {
	b := make([]byte, 9+size)
	b[0] = 'd'
	binary.BigEndian.PutUint32(b[1:], uint32(8+size)) //nolint:gosec // Small.
	binary.BigEndian.PutUint32(b[5:], n)
	return b
}

// TestReliefReadsOnWithoutTouchingWhatIsInUse: messages that were handed out stay, and those
// that come are all there, in order, up to a bound.
func TestReliefReadsOnWithoutTouchingWhatIsInUse(t *testing.T) {
	t.Parallel()
	client, server := tcpPair(t)
	s := newSocket(client, 1<<16)
	stuck := false
	s.unheard = func() bool { return stuck }
	const messages = 100_000
	go func() {
		for n := range uint32(messages) {
			if _, err := server.Write(numbered(n, 1000)); err != nil {
				return
			}
		}
	}()
	var held, want []byte
	for n := uint32(0); n < messages; {
		_, payload, ok, err := s.next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if err := s.fill(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if got := binary.BigEndian.Uint32(payload); got != n {
			t.Fatalf("got message %d, want %d", got, n)
		}
		if n++; n%10_000 != 5 {
			continue
		}
		held, want = payload, bytes.Clone(payload)
		unread := s.end - s.start
		s.relieve()
		if s.end-s.start != unread {
			t.Fatal("it reads although the server hears everything")
		}
		for stuck = true; s.end-s.start <= reliefMax && s.end-s.start < unread+3*reliefBytes && n < messages/2; {
			s.relieve()
		}
		stuck = false
		if !bytes.Equal(held, want) {
			t.Fatal("a message that is in use has changed")
		}
	}
}

func TestReliefIsBounded(t *testing.T) {
	t.Parallel()
	client, server := tcpPair(t)
	s := newSocket(client, 1<<16)
	s.unheard = func() bool { return true }
	go func() {
		for b := make([]byte, 1<<20); ; {
			if _, err := server.Write(b); err != nil {
				return
			}
		}
	}()
	for range 40 {
		s.relieve()
	}
	if n := s.end - s.start; n <= reliefMax || n > reliefMax+2*reliefBytes {
		t.Errorf("%d bytes are kept, want about %d", n, reliefMax)
	}
}

// reliefEnv sets how long TestOverflownBufferStillLetsReportsThrough looks for an overflow,
// in seconds. It takes luck: about one in twenty tries on an ordinary machine.
const reliefEnv = "DBMAZZ_RELIEF_SECONDS"

// TestOverflownBufferStillLetsReportsThrough has a reader that stops while small packets
// come as fast as they can. When the server does not hear of it any more, relief makes
// that it does; without it nothing would.
func TestOverflownBufferStillLetsReportsThrough(t *testing.T) {
	t.Parallel()
	limit, _ := strconv.Atoi(os.Getenv(reliefEnv)) // Not set is a short look.
	client, server := tcpPair(t)
	s := newSocket(client, 1<<20)
	heard := make(chan struct{}, 1000)
	go func() {
		for b := make([]byte, 1); ; heard <- struct{}{} {
			if _, err := server.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		for b := make([]byte, 8<<10); ; {
			if _, err := server.Write(b[:30+rand.IntN(300)]); err != nil { //nolint:gosec // Sizes.
				return
			}
		}
	}()
	for began := time.Now(); time.Since(began) < time.Second+time.Duration(limit)*time.Second; {
		for left := rand.IntN(100 << 20); left > 0; left -= s.last { //nolint:gosec // Sizes.
			if err := s.fill(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			s.start = s.end
			if rand.IntN(100) == 0 { //nolint:gosec // When.
				<-time.After(2 * time.Millisecond)
			}
		}
		sent := 0
		report := func() {
			if err := s.write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			sent++
			<-time.After(300 * time.Millisecond)
		}
		for range 5 {
			report()
		}
		if s.unheard() {
			t.Logf("after %s %d of %d reports are heard", time.Since(began), len(heard), sent)
			for range 40 {
				report()
				if sent%5 == 0 {
					s.relieve()
				}
			}
			for range 30 { // Those that are repeated take their time.
				<-time.After(100 * time.Millisecond)
			}
			t.Logf("then %d of %d", len(heard), sent)
			if len(heard) < sent {
				t.Fatal("the server does not hear of the reader")
			}
		}
		for len(heard) > 0 {
			<-heard
		}
	}
}
