package packet

import (
	"encoding/hex"
	"testing"
)

func TestSACKBlocks(t *testing.T) {
	for _, c := range []struct {
		name    string
		options string // kind, length, value
		want    [][2]uint32
		at      int
	}{
		{"none", "", nil, 0},
		{"padding, timestamps", "0101080a0000000100000002", nil, 0},
		{"one block behind padding", "0101050a0000000a00000014", [][2]uint32{{10, 20}}, 4},
		{"two blocks behind timestamps", "0101080a00000001000000020101051200000001000000020000000300000004", [][2]uint32{{1, 2}, {3, 4}}, 16},
		{"four blocks", "0101052200000001000000020000000300000004000000050000000600000007ffffffff", [][2]uint32{{1, 2}, {3, 4}, {5, 6}, {7, 1<<32 - 1}}, 4},
		{"behind the end of options", "00050a0000000a00000014", nil, 0},
		{"cut short", "050a0000000a000000", nil, 0},
		{"no block", "0502", nil, 0},
		{"half a block", "05060000000a", nil, 0},
		{"length 0", "0800050a0000000a00000014", nil, 0},
		{"kind alone", "05", nil, 0},
	} {
		options, err := hex.DecodeString(c.options)
		if err != nil {
			t.Fatal(err)
		}
		blocks, n, at := SACKBlocks(options)
		if n != len(c.want) || at != c.at {
			t.Errorf("%s: %d blocks at %d, want %d at %d", c.name, n, at, len(c.want), c.at)
			continue
		}
		for i, w := range c.want {
			if blocks[i].Left() != w[0] || blocks[i].Right() != w[1] {
				t.Errorf("%s: block %d is %d-%d, want %v", c.name, i, blocks[i].Left(), blocks[i].Right(), w)
			}
			blocks[i].Set(w[0]+1, w[1]-1)
			if blocks[i].Left() != w[0]+1 || blocks[i].Right() != w[1]-1 {
				t.Errorf("%s: block %d is %d-%d after Set", c.name, i, blocks[i].Left(), blocks[i].Right())
			}
		}
	}
}

func FuzzSACKBlocks(f *testing.F) {
	for _, s := range []string{"", "0101050a0000000a00000014", "0101080a0000000100000002", "05", "00", "0522"} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, options []byte) {
		blocks, n, at := SACKBlocks(options)
		if n < 0 || n > 4 || n > 0 && (at < 2 || at+8*n > len(options)) {
			t.Fatalf("%d blocks at %d of %d bytes", n, at, len(options))
		}
		for _, b := range blocks[:n] {
			b.Set(1, 2)
		}
	})
}
