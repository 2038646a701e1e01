//go:build chaos

package killpoint

import (
	"fmt"
	"os"
	"sync"
	"syscall"
)

// fileEnv names the variable that holds the name of the file to look for.
const fileEnv = "DBMAZZ_KILLPOINT"

var armed struct {
	sync.Mutex
	line   string // the one that passed counts for
	passed int
}

// Reached ends or halts the process if its file says so. It may be called from several goroutines.
func Reached(name string) {
	path := os.Getenv(fileEnv)
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return // Nothing is armed.
	}
	var at, verb string
	var passes int
	if _, err := fmt.Sscan(string(text), &at, &passes, &verb); err != nil || at != name {
		return
	}
	armed.Lock()
	defer armed.Unlock()
	if armed.line != string(text) {
		armed.line, armed.passed = string(text), 0
	}
	if armed.passed++; armed.passed <= passes {
		return
	}
	if os.Rename(path, path+".hit") != nil {
		return // It struck already, or was disarmed.
	}
	signal := syscall.SIGKILL
	if verb == "stop" {
		signal = syscall.SIGSTOP
	}
	_ = syscall.Kill(os.Getpid(), signal) // A signal to oneself arrives before the call returns.
}
