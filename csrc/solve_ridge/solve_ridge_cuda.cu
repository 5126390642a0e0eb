namespace neurokern {}
