"""Channel stages by name: what happens to vectors between client and server. A new one is a file here and a line."""

from fedopt.registry import Registry

STAGES = Registry("channel stage", {}, base="fedopt.channel.base:Stage", plugins="stage")
