package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"weigh/cmd/weigh/internal/page"
	"weigh/cmd/weigh/internal/render"
)

// defaultListen is where the page is served: an address that only this machine
// reaches.
const defaultListen = "127.0.0.1:8117"

// wsaAddrInUse is what Windows says of a port in use.
const wsaAddrInUse = syscall.Errno(10048)

// newServeCmd returns the sub-command that serves the page.
func newServeCmd() *cobra.Command {
	var o struct {
		listen string
		demo   bool
	}
	cmd := &cobra.Command{
		Use:   "serve [MODEL|FOLDER]...",
		Short: "A page in the browser: every byte and the speed, while you drag",
		Long: `Serve shows a page on this machine: where every byte of a model goes, on the
hardware that is here or on any cards of the catalogue, while settings are
dragged, with the speed, and the llama-server line to copy.

The page can open the models that are named here and those in the folders that
are named here, and without any the models in this machine's stores; nothing
else. It is answered on this machine only, unless --listen gives another address,
and loads nothing from anywhere.`,
		Example: `  weigh serve model.gguf
  weigh serve ~/models
  weigh serve --demo`,
		RunE: func(cmd *cobra.Command, args []string) error {
			limitMemory(math.MaxInt64)
			l, err := listen(o.listen)
			if err != nil {
				return err
			}
			defer l.Close()
			if ip := addrOf(l).Addr(); !ip.IsLoopback() {
				fmt.Fprintf(cmd.ErrOrStderr(), "weigh: warning: %s is reached from other machines: whoever reaches it can read the headers of the models listed\n", ip)
			}
			lib := &library{names: args}
			if o.demo {
				dir, err := os.MkdirTemp("", "weigh-demo-")
				if err != nil {
					return err
				}
				defer os.RemoveAll(dir)
				paths, err := writeDemos(dir)
				if err != nil {
					return err
				}
				lib.names = append(lib.names, paths...)
			}
			n, err := lib.list(cmd.Context())
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "%s at %s\n", plural(n, "model"), render.StyleOf(w).Bold("http://"+l.Addr().String()+"/"))
			if n == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "weigh: hint: name a model or a folder, or try weigh serve --demo")
			}
			return serve(cmd.Context(), l, newAPI(lib))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultListen, "`address:port` to answer at; port 0: any free one")
	f.BoolVar(&o.demo, "demo", false, "add models of which the program itself holds the headers")
	return cmd
}

// listen binds an address.
func listen(address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: want address:port, such as %s", address, defaultListen)
	}
	if _, err := netip.ParseAddr(host); err != nil && !strings.EqualFold(host, "localhost") {
		return nil, fmt.Errorf("--listen %s: want an IP address before the port, such as %s", address, defaultListen)
	}
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaAddrInUse) {
		return nil, fmt.Errorf("--listen %s: another program listens there; --listen %s takes any free port", address, net.JoinHostPort(host, "0"))
	}
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", address, err)
	}
	return l, nil
}

func addrOf(l net.Listener) netip.AddrPort {
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	return a.AddrPort()
}

// serve answers until ctx ends, and then finishes what it is answering.
func serve(ctx context.Context, l net.Listener, api http.Handler) error {
	srv := &http.Server{
		Handler:           page.Handler(l.Addr().String(), api),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return srv.Close()
	}
	return nil
}
