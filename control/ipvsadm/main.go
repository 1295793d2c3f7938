package ipvsadm

import (
	"context"
	"io"
	"path/filepath"
	"strings"

	"uvs/control/api"
)

// System is what a process has around it.
type System struct {
	Getenv func(string) string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Import is the word import's; nil is none.
	Import ImportFunc
}

// Main is uvsadm, and under their names ipvsadm, ipvsadm-save and ipvsadm-restore. argv is the whole command line with
// the name it was called by; the result is the exit status.
func Main(ctx context.Context, argv []string, sys System) (exit int) {
	socket := sys.Getenv("UVS_SOCKET")
	if socket == "" {
		socket = api.DefaultSocket
	}
	name, args := argv[0], argv[1:]
	base := filepath.Base(name)
	// ipvsadm's own names have ipvsadm's own words: --socket is not one of them.
	speaksWords := base != "ipvsadm" && base != "ipvsadm-save" && base != "ipvsadm-restore"
	if speaksWords && len(args) > 0 {
		if path, ok := strings.CutPrefix(args[0], "--socket="); ok {
			socket, args = path, args[1:]
		} else if args[0] == "--socket" {
			if len(args) == 1 {
				io.WriteString(sys.Stderr, base+": --socket: missing argument\n")
				return 2
			}
			socket, args = args[1], args[2:]
		}
	}
	client := api.NewClient(socket)
	defer client.Close()
	p := &Program{Name: name, Backend: client, Names: new(SystemNames), Stdin: sys.Stdin, Stdout: sys.Stdout, Stderr: sys.Stderr, Import: sys.Import}
	switch {
	case base == "ipvsadm-save":
		return p.saveScript(ctx, args)
	case base == "ipvsadm-restore":
		return p.restoreScript(ctx)
	case speaksWords:
		return p.runWord(ctx, args)
	default:
		return p.Run(ctx, args)
	}
}
