package cdc

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// Rechecksum returns data with the checksum that its content has.
func Rechecksum(data []byte) []byte {
	if len(data) < checksumSize {
		return data
	}
	data = slices.Clone(data)
	data[0] = codeUint32
	binary.BigEndian.PutUint32(data[1:], crc32.Checksum(data[checksumSize:], castagnoli))
	return data
}
