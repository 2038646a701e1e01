//go:build !linux

package pgtest

import (
	"errors"
	"os"
	"syscall"
)

// account is the user that the server runs as: here always the caller.
type account struct{}

func serverAccount() (account, error) {
	if os.Geteuid() == 0 {
		return account{}, errors.New("PostgreSQL cannot run as root; run as an ordinary user")
	}
	return account{}, nil
}

func (account) attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }

func (account) own(string) error { return nil }

func (account) reachable(string) error { return nil }

func children(int) []int { return nil }

func alive(int) bool { return false }
