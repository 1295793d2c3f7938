package replay

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"

	"uvs/packet"
)

// Anonymiser gives addresses other ones that keep what schedulers go by: the same address is always given the same, and two
// that have their first n bits in common still have after it. It is Crypto-PAn (Xu, Fan, Ammar and Moon, "Prefix-preserving IP
// address anonymization", ICNP 2002) for IPv4 and the same for IPv6's 128 bits. Without the key nobody finds the addresses; but
// who knows some of them knows parts of their neighbours.
type Anonymiser struct {
	block cipher.Block
	pad   [16]byte
	known map[packet.Addr]packet.Addr
}

// mostKnown is how many addresses an Anonymiser remembers, lest it calculate them again.
const mostKnown = 1 << 16

// NewAnonymiser returns one with a key of any length.
func NewAnonymiser(key []byte) *Anonymiser {
	sum := sha256.Sum256(key)
	return newAnonymiser(sum)
}

// newAnonymiser takes Crypto-PAn's own 32 bytes: AES's key and the padding.
func newAnonymiser(key [32]byte) *Anonymiser {
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic("aes: " + err.Error()) // 16 bytes are a key
	}
	a := &Anonymiser{block: block, known: map[packet.Addr]packet.Addr{}}
	block.Encrypt(a.pad[:], key[16:])
	return a
}

// Addr is the address that stands for x.
func (a *Anonymiser) Addr(x packet.Addr) packet.Addr {
	if y, ok := a.known[x]; ok {
		return y
	}
	b := x.As16()
	var y packet.Addr
	if x.Is4() {
		var four [16]byte
		copy(four[:], b[12:])
		a.scramble(&four, 32)
		y = packet.AddrFrom4(binary.BigEndian.Uint32(four[:4]))
	} else {
		a.scramble(&b, 128)
		y = packet.AddrFrom16(&b)
	}
	if len(a.known) >= mostKnown {
		clear(a.known)
	}
	a.known[x] = y
	return y
}

// scramble flips each of the first bits by what those before it say.
func (a *Anonymiser) scramble(b *[16]byte, bits int) {
	var in, out, flips [16]byte
	for i := range bits {
		in = a.pad
		whole, rest := i/8, i%8
		copy(in[:whole], b[:whole])
		mask := byte(0xff) << (8 - rest)
		in[whole] = b[whole]&mask | a.pad[whole]&^mask
		a.block.Encrypt(out[:], in[:])
		flips[whole] |= out[0] >> 7 << (7 - rest)
	}
	for i := range bits / 8 {
		b[i] ^= flips[i]
	}
}
