package pgtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	tempPrefix = "dbmazz-pg-"
	lockName   = "owner.lock"
)

// processPassword is the superuser's password of every server of this process that is not given one:
// other users of the machine can reach the loopback port too.
var processPassword = sync.OnceValue(rand.Text)

// temp is the folder below which this process keeps its templates and temporary data folders.
var temp struct {
	sync.Mutex
	root string
	lock *os.File
}

// tempRoot makes the process's folder on first use and removes those of processes that were killed.
// A process holds a lock on a file in its folder: a free lock means that its owner is gone.
func tempRoot() (string, error) {
	temp.Lock()
	defer temp.Unlock()
	if temp.root != "" {
		return temp.root, nil
	}
	if err := sweepTemp(os.TempDir()); err != nil {
		return "", err
	}
	root, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return "", fmt.Errorf("make a folder for PostgreSQL data: %w", err)
	}
	lock, err := lockOwner(root)
	if err != nil {
		return "", fmt.Errorf("mark a folder as owned by this process: %w", err)
	}
	temp.root, temp.lock = root, lock
	return root, nil
}

// lockOwner gives the lock file its name only once it is locked, so that a sweep never finds it free.
func lockOwner(root string) (*os.File, error) {
	if err := os.Chmod(root, 0o711); err != nil { // The server's user must pass through.
		return nil, err
	}
	lock, err := os.CreateTemp(root, lockName)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	if err := os.Rename(lock.Name(), filepath.Join(root, lockName)); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// removeTemp removes the process's folder with every template in it.
func removeTemp() error {
	temp.Lock()
	defer temp.Unlock()
	if temp.root == "" {
		return nil
	}
	templates.Lock()
	templates.byMajor = map[int]*template{}
	templates.Unlock()
	err := errors.Join(os.RemoveAll(temp.root), temp.lock.Close())
	temp.root, temp.lock = "", nil
	return err
}

func sweepTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for folders that killed processes left: %w", err)
	}
	for _, entry := range entries {
		if !entry.IsDir() || !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		sweepOne(filepath.Join(dir, entry.Name()))
	}
	return nil
}

// sweepOne removes a folder whose owner is gone. Leaving one behind costs disk space only, so nothing here is
// worth failing a test for.
func sweepOne(dir string) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return // Another user's, or one that its owner is just making.
	}
	defer func() { _ = lock.Close() }() // Closing frees the lock.
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		_ = os.RemoveAll(dir)
	}
}
