package pgtest

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// account is the user that the server runs as; the zero account is the caller itself.
type account struct {
	uid, gid uint32
	switched bool
}

// serverAccount picks an unprivileged user when the caller is root, because PostgreSQL refuses to run as root.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(found.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(found.Gid, 10, 32)
		if errUID != nil || errGID != nil {
			continue
		}
		return account{uid: uint32(uid), gid: uint32(gid), switched: true}, nil
	}
	return account{}, fmt.Errorf("PostgreSQL cannot run as root, and neither of the users postgres and nobody exists")
}

// attributes make the child die with the thread that started it: SIGQUIT is PostgreSQL's immediate shutdown.
// An own process group keeps a terminal's Ctrl-C away from the server, so that its owner stops it in order.
func (a account) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT, Setpgid: true}
	if a.switched {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
		// Root's test folders lie below folders that only root may enter; the server must reach its data in them.
		// The capability holds from exec on, so the binaries themselves must be open to all: see reachable.
		attr.AmbientCaps = []uintptr{unix.CAP_DAC_OVERRIDE}
	}
	return attr
}

func (a account) own(path string) error {
	if !a.switched {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// reachable tells whether the server's user may enter a folder.
func (a account) reachable(dir string) error {
	if !a.switched {
		return nil
	}
	for path := dir; ; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("look at the folder of the server's binaries: %w", err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("run %s as an unprivileged user: %s is closed to other users; set %s to an open folder", dir, path, CacheEnv)
		}
		if path == filepath.Dir(path) {
			return nil
		}
	}
}

// children lists the direct children of a process.
func children(pid int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// alive tells whether a process still runs; one that waits to be reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, state, found := bytes.Cut(stat, []byte(") "))
	return found && !bytes.HasPrefix(state, []byte("Z")) && !bytes.HasPrefix(state, []byte("X"))
}
