//! Each SDK under the real daemon.
