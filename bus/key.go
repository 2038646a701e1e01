package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// KeyFile is the name of the file in the data folder that holds the nkey seed with
// which every client of its server authenticates, in the form that `nats --nkey` reads.
// It is made when missing, readable for its owner only. A process on another host needs
// a copy.
const KeyFile = "bus.nk"

// folderKey returns the key of a data folder, which it makes if create is set. The
// caller then holds the folder's lock.
func folderKey(folder string, create bool) (nkeys.KeyPair, error) {
	name := filepath.Join(folder, KeyFile)
	stat, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) && create {
		return makeKey(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read key of data folder: %w", err)
	}
	if mode := stat.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key of data folder: %s has the mode %s: it must be a file that only its owner can read; run chmod 600 on it, "+
			"and remove it instead if others may have read it: a new one is made at the next start", name, mode)
	}
	return readSeed(name)
}

func makeKey(name string) (nkeys.KeyPair, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("make key of data folder: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, fmt.Errorf("make key of data folder: %w", err)
	}
	if err := replaceFile(name, append(seed, '\n')); err != nil {
		return nil, fmt.Errorf("write key of data folder: %w", err)
	}
	return pair, nil
}

// readSeed reads an nkey seed of a user. The file's content is in no error.
func readSeed(name string) (nkeys.KeyPair, error) {
	data, err := os.ReadFile(name) //nolint:gosec // A configured file.
	if err != nil {
		return nil, fmt.Errorf("read nkey seed: %w", err)
	}
	pair, err := nkeys.ParseDecoratedNKey(data)
	if err != nil {
		return nil, fmt.Errorf("read nkey seed: %s does not hold one, as `nk -gen user` makes it: %w", name, err)
	}
	public, err := pair.PublicKey()
	if err != nil || !nkeys.IsValidPublicUserKey(public) {
		return nil, fmt.Errorf("read nkey seed: the one in %s is not that of a user", name)
	}
	return pair, nil
}
