// An MCP server made of two Go SDKs, unmodified, that records the calls it runs.
//
// A path ending in /official is served by the official SDK (github.com/modelcontextprotocol/go-sdk);
// any other path is served by github.com/mark3labs/mcp-go, which matches the keys of a message
// without regard to case. Both speak Streamable HTTP without sessions. Each tools/call that the SDK
// hands on is recorded with the number in the request's `x-case` header, whatever its tool and
// arguments, with the request target and the headers that a server may take for the gate's. GET
// /executed returns the records since the last time, as a JSON array; arguments are JSON text inside
// it.
//
// `bound` is the field `version` of a Go struct that encoding/json fills from the arguments, as
// most handlers written in Go do.
//
// Invariant: it never judges a body itself, neither before nor instead of the SDK.
// Usage: server; prints `listening address=127.0.0.1:PORT` once it listens.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	community "github.com/mark3labs/mcp-go/mcp"
	communityserver "github.com/mark3labs/mcp-go/server"
	official "github.com/modelcontextprotocol/go-sdk/mcp"
)

// pathHeader carries the request target as it arrived.
const pathHeader = "X-Executed-Path"

type record struct {
	Case      int     `json:"case"`
	Tool      string  `json:"tool"`
	Arguments string  `json:"arguments"`
	Bound     *string `json:"bound"`
	Path      string  `json:"path"`
	// Headers that a server may take for the gate's: CGI makes one variable of both spellings.
	Hitl [][2]string `json:"hitl"`
}

var (
	mutex    sync.Mutex
	executed = []record{}
)

func note(header http.Header, tool string, arguments json.RawMessage) {
	number, err := strconv.Atoi(header.Get("X-Case"))
	if err != nil {
		return
	}
	// What a handler without a type of its own gets.
	value := map[string]any{}
	text := "{}"
	if len(arguments) > 0 {
		if err := json.Unmarshal(arguments, &value); err != nil {
			text = "not to be read as an object"
		} else if written, err := json.Marshal(value); err == nil {
			text = string(written)
		}
	}
	// What a handler with a type gets: encoding/json ignores the case of keys.
	var typed struct {
		Version *string `json:"version"`
	}
	if json.Unmarshal(arguments, &typed) != nil {
		typed.Version = nil
	}
	one := record{Case: number, Tool: tool, Arguments: text, Bound: typed.Version, Path: header.Get(pathHeader), Hitl: [][2]string{}}
	for name, values := range header {
		if strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), "x-hitl-") {
			for _, value := range values {
				one.Hitl = append(one.Hitl, [2]string{name, value})
			}
		}
	}
	mutex.Lock()
	defer mutex.Unlock()
	executed = append(executed, one)
}

// unavailable answers 503 after the call has run, for the header `x-answer: 503`.
type unavailable struct{ http.ResponseWriter }

func (u unavailable) WriteHeader(int) { u.ResponseWriter.WriteHeader(503) }
func (u unavailable) Write(b []byte) (int, error) {
	u.WriteHeader(503)
	return u.ResponseWriter.Write(b)
}
func (u unavailable) Flush() {}

func newCommunity() http.Handler {
	hooks := &communityserver.Hooks{}
	hooks.AddBeforeCallTool(func(_ context.Context, _ any, request *community.CallToolRequest) {
		arguments := request.Params.RawArguments
		if arguments == nil && request.Params.Arguments != nil {
			arguments, _ = json.Marshal(request.Params.Arguments)
		}
		note(request.Header, request.Params.Name, arguments)
	})
	server := communityserver.NewMCPServer("differential", "1.0.0",
		communityserver.WithToolCapabilities(true), communityserver.WithHooks(hooks))
	return communityserver.NewStreamableHTTPServer(server,
		communityserver.WithStateLess(true), communityserver.WithDisableLocalhostProtection(true))
}

func newOfficial() http.Handler {
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	server := official.NewServer(&official.Implementation{Name: "differential", Version: "1.0.0"},
		&official.ServerOptions{Logger: quiet, HasTools: true})
	server.AddReceivingMiddleware(func(next official.MethodHandler) official.MethodHandler {
		return func(ctx context.Context, method string, request official.Request) (official.Result, error) {
			call, ok := request.GetParams().(*official.CallToolParamsRaw)
			if !ok {
				return next(ctx, method, request)
			}
			note(request.GetExtra().Header, call.Name, call.Arguments)
			return &official.CallToolResult{Content: []official.Content{&official.TextContent{Text: "executed"}}}, nil
		}
	})
	return official.NewStreamableHTTPHandler(
		func(*http.Request) *official.Server { return server },
		&official.StreamableHTTPOptions{
			Stateless: true, JSONResponse: true, Logger: quiet, DisableLocalhostProtection: true,
		})
}

func main() {
	log.SetOutput(io.Discard)
	communityHandler, officialHandler := newCommunity(), newOfficial()
	// No ServeMux: it would answer some paths itself.
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && r.URL.Path == "/executed":
			mutex.Lock()
			defer mutex.Unlock()
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(executed)
			executed = []record{}
		case r.Method != http.MethodPost:
			w.WriteHeader(http.StatusNotFound)
		default:
			r.Header.Set(pathHeader, r.RequestURI)
			if r.Header.Get("X-Answer") == "503" {
				w = unavailable{w}
			}
			if strings.HasSuffix(r.URL.Path, "/official") {
				officialHandler.ServeHTTP(w, r)
			} else {
				communityHandler.ServeHTTP(w, r)
			}
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Printf("listening address=%s\n", listener.Addr())
	panic((&http.Server{Handler: handler, ErrorLog: log.Default()}).Serve(listener))
}
