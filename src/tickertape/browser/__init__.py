"""Files for browsers: ``tickertape.js``, the client for pages, and an application that serves one file."""

from .files import CLIENT_SCRIPT, File, client_script

__all__ = ["CLIENT_SCRIPT", "File", "client_script"]
