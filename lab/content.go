package lab

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
)

// Content is an endless stream of bytes that depends on seed alone: what GET /bytes sends. It looks random, so that a
// lost, doubled or misplaced piece changes any checksum of it.
func Content(seed uint64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	return rand.NewChaCha8(key)
}

// ContentSHA256 is the SHA-256 of the first n bytes of Content(seed).
func ContentSHA256(seed uint64, n int64) [sha256.Size]byte {
	h := sha256.New()
	io.CopyN(h, Content(seed), n) // neither side can fail
	return [sha256.Size]byte(h.Sum(nil))
}
