package roster_test

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dbmazz/dbmazz/bus"
	"github.com/dbmazz/dbmazz/bus/bustest"
	"github.com/dbmazz/dbmazz/bus/roster"
)

// childAddress names the environment of a child: the data folder of the bus.
const childAddress = "ROSTER_CHILD"

const (
	processTTL    = 2 * time.Second
	processMargin = processTTL / 4
)

// child leads whenever it can and prints "pass" with the time of each successful Check,
// "wait" as a standby and "lost" when a term has ended.
func child(folder string) error {
	ctx := context.Background()
	b, err := bus.New(bus.Config{Pipeline: "test", DataDir: folder, Attach: true, DiskReserve: -1})
	if err != nil {
		return err
	}
	if err := b.Open(ctx); err != nil {
		return err
	}
	l := roster.New(roster.Config{Store: b.Leases(), Key: "leader.test", Member: fmt.Sprint(os.Getpid()), TTL: processTTL})
	go func() {
		waiting := false
		for range time.Tick(10 * time.Millisecond) {
			if now := l.Waiting(); now != waiting {
				if waiting = now; waiting {
					fmt.Println("wait", 0)
				}
			}
		}
	}()
	for {
		term, err := l.Acquire(ctx)
		if err != nil {
			return err
		}
		for {
			at := time.Now().UnixNano()
			if term.Check() != nil {
				break
			}
			fmt.Println("pass", at)
			<-time.After(5 * time.Millisecond)
		}
		fmt.Println("lost", 0)
	}
}

// process is a child as its parent sees it.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu     sync.Mutex
	counts map[string]int
	passes []int64
}

func startProcess(t *testing.T, folder string) *process {
	t.Helper()
	p := &process{cmd: exec.CommandContext(t.Context(), os.Args[0]), ended: make(chan struct{}), counts: map[string]int{}}
	p.cmd.Env = append(os.Environ(), childAddress+"="+folder)
	p.cmd.Stderr = t.Output()
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			word, number, _ := strings.Cut(lines.Text(), " ")
			at, _ := strconv.ParseInt(number, 10, 64)
			p.mu.Lock()
			if p.counts[word]++; word == "pass" {
				p.passes = append(p.passes, at)
			}
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { p.kill() })
	return p
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	_ = p.cmd.Wait()
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

func (p *process) count(word string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[word]
}

// await waits until the process has said the word more often than that.
func (p *process) await(t *testing.T, word string, than int) time.Duration {
	t.Helper()
	began := time.Now()
	for p.count(word) <= than {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("process %d does not say %q", p.cmd.Process.Pid, word)
		}
		<-time.After(5 * time.Millisecond)
	}
	return time.Since(began)
}

// TestStoppedProcessWakesUpToNothing stops the leader with SIGSTOP, has it go on when
// another process leads, and kills that one.
func TestStoppedProcessWakesUpToNothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	bustest.Open(t, bus.Config{DataDir: folder})
	one := startProcess(t, folder)
	one.await(t, "pass", 0)
	two := startProcess(t, folder)
	two.await(t, "wait", 0)

	one.signal(t, syscall.SIGSTOP)
	if took := two.await(t, "pass", 0); took > 3*processTTL {
		t.Errorf("taking over from a stopped process took %s", took)
	}
	one.signal(t, syscall.SIGCONT)
	one.await(t, "lost", 0)
	one.await(t, "wait", 0)
	two.await(t, "pass", two.count("pass"))
	before := one.count("pass")
	two.kill()
	if took := one.await(t, "pass", before+10); took > 3*processTTL {
		t.Errorf("taking over from a dead process took %s", took)
	}
	one.kill()

	type pass struct {
		at  int64
		who int
	}
	var passes []pass
	for who, p := range []*process{one, two} {
		for _, at := range p.passes {
			passes = append(passes, pass{at, who})
		}
	}
	slices.SortFunc(passes, func(a, b pass) int { return cmp.Compare(a.at, b.at) })
	changes := 0
	for i, p := range passes[1:] {
		if before := passes[i]; before.who != p.who {
			changes++
			if gap := time.Duration(p.at - before.at); gap < processMargin {
				t.Errorf("process %d passed Check %s after process %d", p.who, gap, before.who)
			}
		}
	}
	if changes != 2 {
		t.Errorf("the leadership changed %d times between %d checks", changes, len(passes))
	}
}
