package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// removeHalfMade removes the folders of streams whose creation was cut short by a kill:
// the server writes meta.inf and then meta.sum, and refuses for ever a folder that lacks
// one of them. Nobody was told that such a stream exists, and it holds no message, so it
// is created again when it is needed. A folder that holds anything stays as it is, for the
// server to refuse. The caller has the folder locked.
//
// When it starts the server makes an empty file, to see that it can, and removes it. One
// that a kill has left behind it would take for an account that does not exist.
func removeHalfMade(store string) (removed []string, err error) {
	if err := removeProbes(filepath.Join(store, "jetstream")); err != nil {
		return nil, err
	}
	folders, err := filepath.Glob(filepath.Join(store, "jetstream", "*", "streams", "*"))
	if err != nil {
		return nil, fmt.Errorf("look for streams in %s: %w", store, err)
	}
	for _, folder := range folders {
		whole, err := hasMeta(folder)
		if err != nil {
			return removed, err
		}
		if whole {
			continue
		}
		empty, err := holdsNothing(filepath.Join(folder, "msgs"))
		if err != nil {
			return removed, err
		}
		if !empty {
			continue
		}
		if err := os.RemoveAll(folder); err != nil {
			return removed, fmt.Errorf("remove a stream whose creation was cut short: %w", err)
		}
		removed = append(removed, filepath.Base(folder))
	}
	return removed, nil
}

func removeProbes(folder string) error {
	probes, err := filepath.Glob(filepath.Join(folder, "_test_*"))
	if err != nil {
		return fmt.Errorf("look at the store %s: %w", folder, err)
	}
	for _, path := range probes {
		info, err := os.Lstat(path)
		if err == nil && info.Mode().IsRegular() && info.Size() == 0 {
			err = os.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("remove what a start that was cut short has left: %w", err)
		}
	}
	return nil
}

// hasMeta tells whether both files that describe a stream are there and not empty.
func hasMeta(folder string) (bool, error) {
	for _, name := range []string{"meta.inf", "meta.sum"} {
		info, err := os.Stat(filepath.Join(folder, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("look at stream %s: %w", folder, err)
		case info.Size() == 0:
			return false, nil
		}
	}
	return true, nil
}

// holdsNothing tells whether a folder has no file with any content, index included.
func holdsNothing(folder string) (bool, error) {
	empty := true
	err := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() > 0 {
			empty = false
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for messages in %s: %w", folder, err)
	}
	return empty, nil
}
