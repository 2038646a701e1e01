package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	lockName   = "dbmazz.lock"
	markerName = "dbmazz.marker"
)

// lockFolder creates the folder when missing and takes the lock that keeps a second
// process out. The kernel frees it however the process ends.
func lockFolder(folder string) (*os.File, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	name := filepath.Join(folder, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // The folder is a setting.
	if err != nil {
		return nil, fmt.Errorf("open lock of data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // A file descriptor.
		owner := make([]byte, 32)
		n, _ := f.ReadAt(owner, 0)
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &InUseError{Folder: folder, Owner: orDefault(strings.TrimSpace(string(owner[:n])), "unknown")}
		}
		return nil, fmt.Errorf("lock data folder %s: %w; it must be on a local file system with flock", folder, err)
	}
	// The process id is for the message above only, so a full disk is no reason
	// to stay away.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// marker sits beside the store and says which stream must be in it. The server has
// been seen to start without a stream whose files it could not read; a new, empty one
// in its place would be a silent loss.
type marker struct {
	Stream string `json:"stream"`
	Epoch  string `json:"epoch"`
}

// readMarker returns nil when there is none.
func readMarker(folder string) (*marker, error) {
	name := filepath.Join(folder, markerName)
	data, err := os.ReadFile(name) //nolint:gosec // The folder is a setting.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read marker of data folder: %w", err)
	}
	m := new(marker)
	if err := json.Unmarshal(data, m); err != nil || m.Epoch == "" || m.Stream == "" {
		return nil, &StreamLostError{Where: "data folder " + folder, folder: true, Reason: "its marker file " + markerName + " is damaged"}
	}
	return m, nil
}

// writeMarker makes the marker durable before it returns.
func writeMarker(folder string, m marker) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode marker: %w", err)
	}
	if err := replaceFile(filepath.Join(folder, markerName), append(data, '\n')); err != nil {
		return fmt.Errorf("write marker of data folder: %w", err)
	}
	return nil
}

// replaceFile writes the file beside the old one, syncs and renames it.
func replaceFile(name string, data []byte) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // Beside a configured file.
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(name))
}

func syncFolder(folder string) error {
	d, err := os.Open(folder) //nolint:gosec // A configured folder.
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// freeBytes returns what an ordinary user may still write to the disk of the folder.
func freeBytes(folder string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(folder, &s); err != nil {
		return 0, fmt.Errorf("read free space of %s: %w", folder, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil //nolint:gosec,unconvert // The types differ between systems.
}
